;; Forwards nothing.
;; expect: plugin_output: forwarded nothing
(data (i32.const 524) "\00")
