# NATS as this machine has it (Debian's package nats-server), as nobody, with a store it may write.
ARG BASE=interlock/base:bookworm
FROM ${BASE}
RUN mkdir -p /data && chown 10001:10001 /data
COPY nats-server /usr/local/bin/nats-server
USER 10001:10001
VOLUME /data
EXPOSE 4222
HEALTHCHECK --interval=3s --timeout=3s --start-period=10s CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/4222"]
ENTRYPOINT ["nats-server"]
CMD ["--config", "/etc/nats/nats.conf", "--store_dir", "/data"]
