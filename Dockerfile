# One file for processors and graphics cards: torch's wheels bring the libraries of CUDA.
#   docker build -t muybridge .
#   docker build -t muybridge:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
ARG PYTHON=3.12

FROM python:${PYTHON}-slim-bookworm AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN python -m venv /opt/muybridge
RUN /opt/muybridge/bin/pip install --no-cache-dir --extra-index-url ${TORCH_INDEX} -c src/muybridge/constraints.txt torch
RUN /opt/muybridge/bin/pip install --no-cache-dir -c src/muybridge/constraints.txt ".[serve,postgres]"

FROM python:${PYTHON}-slim-bookworm
RUN useradd --uid 1000 --create-home muybridge
RUN install -d -o muybridge -g muybridge /data /models /cache
COPY --from=build /opt/muybridge /opt/muybridge
ENV PATH=/opt/muybridge/bin:$PATH HF_HOME=/cache PYTHONUNBUFFERED=1
USER 1000
VOLUME /data /cache
EXPOSE 7860
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/health', timeout=4)"]
ENTRYPOINT ["muybridge"]
CMD ["serve", "--host", "0.0.0.0", "--data", "/data", "--models", "/models"]
