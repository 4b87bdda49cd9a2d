;; Has a config schema of 15 MiB.
;; expect: rejected: its `describe` failed: plugin_output: handed over more at once
(memory $memory 256)
(data (i32.const 280) "\01\00\00\00" "\00\20\00\00" "\00\00\f0\00")
