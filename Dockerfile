# One image for every service; the command names the module: `docker run IMAGE gateway`.

FROM python:3.11-slim AS packages
COPY requirements/runtime.txt /tmp/runtime.txt
RUN python -m venv /opt/hub \
    && /opt/hub/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /tmp/runtime.txt

FROM python:3.11-slim
# A fixed id, so that a volume made by one version of the image can be read by the next.
RUN useradd --system --user-group --uid 10001 --home-dir /var/lib/hub --shell /usr/sbin/nologin hub \
    && install --directory --owner=hub --group=hub --mode=700 /var/lib/hub
COPY --from=packages /opt/hub /opt/hub
WORKDIR /app
COPY gen/ gen/
COPY chassis/ chassis/
COPY gateway/ gateway/
COPY intake_service/ intake_service/
COPY orchestrator_service/ orchestrator_service/
COPY adapter_service/ adapter_service/
COPY console/ console/
COPY simulator/ simulator/
COPY deploy/ deploy/
COPY tools/health.py tools/health.py
COPY LICENSE pyproject.toml ./
ENV PATH=/opt/hub/bin:$PATH \
    PYTHONPATH=/app:/app/gen \
    PYTHONUNBUFFERED=1 \
    GRPC_VERBOSITY=NONE \
    HUB_STATE_DIR=/var/lib/hub
# The root file system is read-only at run time: what is not compiled now never is.
RUN python -m compileall -q /app
USER hub
ENTRYPOINT ["python", "-m"]
CMD ["console", "--help"]
