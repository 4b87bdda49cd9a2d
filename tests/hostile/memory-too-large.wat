;; Begins with more memory than it may have.
;; expect: rejected: plugin_memory: needs more memory than its limit of 16777216 bytes
(memory $memory 257)
