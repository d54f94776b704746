# An image to train and detect in.
#
#   docker build -t detector .                                    for the CPU
#   docker build -t detector --build-arg DEVICE=cuda .            for NVIDIA GPUs
#   docker run --rm -v "$PWD/runs:/app/runs" detector python detect.py --weights yolov5s.pt --source data/images
#   docker run --rm --gpus all --ipc host -v "$PWD/datasets:/datasets" -v "$PWD/runs:/app/runs" detector \
#       python train.py --data data/coco128.yaml --weights yolov5s.pt
#
# --ipc host: the processes that load images share memory, more than the 64 MB a container has by itself.
# PYTORCH_INDEX: an index with wheels of PyTorch for the CPU alone, where a small image matters; PyPI's bring CUDA along.

ARG DEVICE=cpu

FROM python:3.12-slim-bookworm AS cpu

FROM pytorch/pytorch:2.5.1-cuda12.4-cudnn9-runtime AS cuda

FROM ${DEVICE}
ARG PYTORCH_INDEX=""
ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    MPLCONFIGDIR=/tmp/matplotlib

# What OpenCV's wheel is linked against, and a font for Chinese class names.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 fonts-wqy-microhei \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /app
COPY requirements.txt ./
RUN if [ -n "$PYTORCH_INDEX" ]; then pip install torch torchvision --index-url "$PYTORCH_INDEX"; fi \
    && pip install -r requirements.txt

COPY *.py LICENSE README.md ./
COPY data ./data
COPY models ./models
COPY utils ./utils
COPY engine ./engine

CMD ["python", "detect.py", "--help"]
