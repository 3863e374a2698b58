"""The custom resource definitions, generated from the models: what the API server shall know of them, no more."""
