#!/bin/sh
# Builds order-message.wasm with Go's own compiler; `wit-bindgen` makes the bindings, and `wasm-tools` adds the
# types of the contract, by which the gateway makes the module a component.
set -eu
cd "$(dirname "$0")"
wit=$(cd ../../wit/since-v1.0 && pwd)
rm -rf bindings
wit-bindgen go --world plugin --out-dir bindings "$wit"
mkdir bindings/export_hookmill_plugin_transformer
cp plugin.go bindings/export_hookmill_plugin_transformer/
cd bindings
# The bindings' own package; where Go's module proxy does not have it, a copy of it.
if [ -n "${GO_PKG:-}" ]; then
  go mod edit -replace "go.bytecodealliance.org/pkg=$GO_PKG"
fi
go mod tidy
# The bindings allocate before Go's runtime is up, by a function of it that the linker would not let them name.
GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -ldflags='-checklinkname=0 -s -w' -o ../core.wasm .
cd ..
wasm-tools component embed --world plugin "$wit" core.wasm --output order-message.wasm
rm core.wasm
