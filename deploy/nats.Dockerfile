# NATS from Debian's package, for places without a registry; elsewhere set NATS_IMAGE=nats:2 for deploy/compose.yaml.
ARG BASE=interlock/base:bookworm
FROM ${BASE}
COPY nats-server /usr/local/bin/nats-server
RUN mkdir -p /data && chown 10001:10001 /data
USER 10001:10001
VOLUME /data
EXPOSE 4222
ENTRYPOINT ["nats-server"]
CMD ["--config", "/etc/nats/nats.conf"]
