"""The door: `gateway serve | check | explain | schema | key`."""

import signal

# A reload that is asked for while the process is still importing waits until there is someone to reload; unhandled, the
# signal would end it. `serve` takes it as soon as it can.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
