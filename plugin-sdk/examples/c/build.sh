#!/bin/sh
# Builds order-message.wasm with Debian's clang; `wit-bindgen` makes the bindings.
set -eu
cd "$(dirname "$0")"
mkdir -p bindings
wit-bindgen c --world plugin --out-dir bindings ../../wit/since-v1.0
# The object file carries the types of the contract, by which the gateway makes the module a component.
"${CLANG:-clang-19}" --target=wasm32-wasi -O2 -flto -Wall -Wextra -Werror=implicit -mexec-model=reactor \
  -Ibindings order_message.c json.c bindings/plugin.c bindings/plugin_component_type.o \
  -Wl,-z,stack-size=65536 -Wl,--initial-memory=262144 -Wl,--strip-debug -o "${OUT:-order-message.wasm}"
