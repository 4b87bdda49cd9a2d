;; Returns 200,000 empty parts.
;; expect: plugin_output: handed over more at once
(memory $memory 256)
(data (i32.const 524) "\40\0d\03\00")
