"""What grows with what: work is counted, never timed, so that a busy machine says the same as an idle one."""
