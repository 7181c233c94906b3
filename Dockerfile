# Two stages: pip and the compilers' caches stay in the first; the second runs as nobody's account and holds no shell tools
# that the gateway does not need.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE gateway.yaml ./
COPY config ./config
COPY gateway ./gateway
RUN python -m venv /opt/gateway && /opt/gateway/bin/pip install --no-cache-dir . && /opt/gateway/bin/pip uninstall --yes pip

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home gateway
COPY --from=build /opt/gateway /opt/gateway
ENV PATH=/opt/gateway/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /etc/gateway
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=2s --start-period=5s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/ready', timeout=1)"]
# Mount your gateway.yaml at /etc/gateway/gateway.yaml; without one, the shipped configuration serves.
CMD ["gateway", "serve", "--host", "0.0.0.0"]
