;; Returns a body whose length is the largest that there is.
;; expect: plugin_output: out of bounds
(data (i32.const 608) "\ff\ff\ff\ff")
