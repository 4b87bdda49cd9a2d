;; Traps when it starts.
;; expect: rejected: plugin_trap: wasm trap: wasm `unreachable` instruction executed
(func $start unreachable)
(start $start)
