module beamlit.com/tests/tools/keda

go 1.26.0

// Its custom resource definitions alone: its operator is made of the libraries of every cloud and database.
require github.com/kedacore/keda/v2 v2.20.2
