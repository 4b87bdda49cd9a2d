;; Returns a body that says it is text and is not UTF-8.
;; expect: plugin_output: invalid utf-8
(data (i32.const 1040) "\ff\fe")
