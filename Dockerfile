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
# Healthy: this container's node answers. Who leads does not matter; exit code 1 means "nobody now".
HEALTHCHECK --interval=5s --timeout=3s --start-period=5s \
  CMD ["sh", "-c", "zelect status -c /etc/zelect/node.toml >/dev/null; test $? -le 1"]
ENTRYPOINT ["zelect"]
# Nothing is written outside /data: docker run --read-only works (docs/security.md).
CMD ["node", "-c", "/etc/zelect/node.toml"]
