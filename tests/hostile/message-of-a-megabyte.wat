;; Fails for good, with a message of a megabyte of zeros.
;; expect: plugin_invalid: …
(memory $memory 32)
(data (i32.const 512) "\01")
(data (i32.const 520) "\00\00\01\00" "\00\00\10\00")
