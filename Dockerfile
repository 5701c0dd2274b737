# A CPU image: models that run here, endpoints, reports.
#   docker build -t preceptor .
#   docker run --rm -v "$PWD:/work" preceptor rank responses/*.jsonl --no-student --reward-column reward
FROM python:3.11-slim AS build
COPY . /source
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /source

FROM python:3.11-slim
COPY constraints.txt /tmp/constraints.txt
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \
    -c /tmp/constraints.txt "$(ls /wheels/*.whl)[local,datasets,verify]" \
    && rm -rf /wheels /tmp/constraints.txt \
    && useradd --create-home preceptor
USER preceptor
WORKDIR /work
ENTRYPOINT ["preceptor"]
