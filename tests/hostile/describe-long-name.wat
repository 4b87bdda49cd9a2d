;; Has a name of 60,000 bytes.
;; expect: rejected: its name is 60000 bytes long; at most 128 are allowed
(data (i32.const 260) "\60\ea\00\00")
