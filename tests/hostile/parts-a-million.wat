;; Returns a million parts: 72 MB of records in 64 MiB of memory.
;; expect: plugin_output: out of bounds
;; manifest: limits.memory_bytes = "64 MiB"
(memory $memory 1024)
(data (i32.const 524) "\40\42\0f\00")
