# One router in one image: docker build -t spark-router . && docker run -p 8080:8080 -p 8081:8081 spark-router serve --backend http://spark-1:8000
# The same file builds on x86-64 and aarch64 (a Spark): every dependency has wheels for both, nothing is compiled. The newest
# Python on purpose: a call costs a third less than on an unoptimised 3.11.

FROM python:3.14-slim AS build
WORKDIR /src
COPY pyproject.toml README.md ./
COPY deploy/constraints.txt deploy/constraints.txt
COPY router router
RUN python -m venv /opt/router \
 && /opt/router/bin/pip install --no-cache-dir --disable-pip-version-check --constraint deploy/constraints.txt .

FROM python:3.14-slim
LABEL org.opencontainers.image.title="spark-router" \
      org.opencontainers.image.description="One OpenAI-compatible URL in front of every vLLM server on one or more DGX Sparks"
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/router router \
 && mkdir -p /etc/router \
 && chown router:router /etc/router
COPY --from=build /opt/router /opt/router
ENV PATH=/opt/router/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    ROUTER_ADMIN_HOST=0.0.0.0 \
    ROUTER_STATE_DIR=/var/lib/router
USER router
WORKDIR /var/lib/router
# What was learned about each build, and the admin token, outlive the container here.
VOLUME /var/lib/router
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
# No curl in the image; asks the port that serves clients, on the loopback, and follows ROUTER_PORT.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:%s/livez' % os.environ.get('ROUTER_PORT', '8080'), timeout=2)"]
ENTRYPOINT ["router"]
CMD ["serve", "--config", "/etc/router/fleet.yaml"]
