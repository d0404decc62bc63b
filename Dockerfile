# Small, without root, one node a container. See README.md, "Containers".
FROM python:3.11-slim AS build
COPY . /src
RUN python -m venv /opt/zelect && /opt/zelect/bin/pip install --no-cache-dir /src

FROM python:3.11-slim
COPY --from=build /opt/zelect /opt/zelect
ENV PATH=/opt/zelect/bin:$PATH PYTHONUNBUFFERED=1
RUN useradd --system --uid 10001 --no-create-home zelect \
 && mkdir -m 0700 /data && chown zelect /data
USER zelect
VOLUME /data
EXPOSE 7101
# Healthy: this container's own node answers, so its loop runs. Whether others do, and who is active, does not matter.
HEALTHCHECK --interval=5s --timeout=3s --start-period=5s \
  CMD ["zelect", "status", "--self", "--timeout", "2"]
ENTRYPOINT ["zelect"]
# Nothing is written outside /data: docker run --read-only works (docs/security.md).
# Its configuration: /etc/zelect/zelect.toml and the environment, with ZELECT_NODE_ID.
CMD ["node"]
