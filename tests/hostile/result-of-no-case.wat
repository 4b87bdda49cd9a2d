;; Returns neither a verdict nor a failure.
;; expect: plugin_output: discriminant
(data (i32.const 512) "\07")
