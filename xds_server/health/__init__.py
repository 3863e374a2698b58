"""Whether remote backends answer, as this server itself sees it: it alone reads the Secrets that a check needs.

::

    Publisher -> Backend -> BackendProbe -> CheckOutcome -> Belief -> RemoteReport
                 what is    one check       what it         with      what is reported,
                 checked                    found           Evidence  when it changes

* `backend`, `outcome`, `evidence`, `judgement` and `belief` are pure; `connection` and `probe` do one check; `checks`
  decides who is checked when.
* One check for each distinct backend, however many routes use it, and one belief for each namespace that does.
* Nothing secret, and nothing that a server says but its status and the error codes of RFC 6749, is in an outcome, an
  exception or a log.
"""
