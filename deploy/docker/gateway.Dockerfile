# The image of the gateway: the official Envoy, started, watched and drained by `beamlit envoy`.
#
#   docker build -f deploy/docker/gateway.Dockerfile --build-arg BEAMLIT_IMAGE=beamlit-controller -t beamlit-gateway .
#
# ENVOY_DIGEST pins the very image (sha256:...); without one its tag says which. BEAMLIT_IMAGE is what Dockerfile builds.
ARG ENVOY_IMAGE=envoyproxy/envoy
ARG ENVOY_TAG=distroless-v1.40.0
ARG ENVOY_DIGEST
ARG BEAMLIT_IMAGE=beamlit-controller

FROM ${ENVOY_IMAGE}:${ENVOY_TAG}${ENVOY_DIGEST:+@${ENVOY_DIGEST}} AS envoy

FROM ${BEAMLIT_IMAGE}
LABEL org.opencontainers.image.title="beamlit-gateway" \
      org.opencontainers.image.description="Envoy, drained by beamlit before it ends" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=envoy /usr/local/bin/envoy /usr/local/bin/envoy
ENV ENVOY=/usr/local/bin/envoy
ENTRYPOINT ["/opt/beamlit/bin/beamlit", "envoy"]
