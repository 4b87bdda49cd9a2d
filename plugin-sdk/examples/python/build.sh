#!/bin/sh
# Builds order-message.wasm: the source and CPython, which runs it.
set -eu
cd "$(dirname "$0")"
"${PYTHON:-python3}" -m venv .venv
.venv/bin/pip install --quiet --requirement requirements.txt
.venv/bin/componentize-py --wit-path ../../wit/since-v1.0 --world plugin componentize app --output order-message.wasm
