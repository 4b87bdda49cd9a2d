#!/bin/sh
# Builds order-message.wasm: the source and QuickJS, which runs it.
set -eu
cd "$(dirname "$0")"
npm install
npm run build
