;; Never ends starting.
;; expect: rejected: plugin_timeout: ran longer than its limit of 500ms
(func $start (loop (br 0)))
(start $start)
