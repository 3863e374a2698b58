"""The xDS protocol with one client on one stream: a state machine without I/O, clock or chance.

Theory of operation
===================

In go requests (`DeltaRequest`, `SotwRequest`), new snapshots, and the time. Out comes an `Output`: the responses to be
sent, the time of the next `tick`, and what became known (ACKs, NACKs, waits that ran out). Nothing else is ever changed
or looked at, so a session can be played in a test, and two that are played the same events say the same.

What takes long is done in `parts`: an event is a generator, and whoever handed it in may do something else between its
parts, but for this session, to which nothing else happens meanwhile.

* `messages` are the values that go in and come out.
* `ledger` has the books of one type: what the client asked for, has (`holdings`), was sent and refused. It is the one
  owner of that state, and changes by its own methods, named after the events of the protocol.
* `openings` remember what a first request made of those books, for other clients that say the same.
* `ordering` reads the ledgers of all types and plans what of one type may go now.
* `session` hands each event to the ledger it is about, then sends what can be sent. `dialects` are the two ways to say
  it: delta, and state of the world (SotW).

The numbers X01 to X60 are the statements in docs/xds.md.

One response at a time
----------------------
Per type at most one response waits for the client's answer (X48). What changes meanwhile is only noted by name
(`pending`), and the content is looked up when the answer has come: states in between are never sent, the newest always
is, and a client that is slow costs one set of names.

Make before break
-----------------
A resource goes out once the client has ACKed all that it requires, in any version; a removal goes out once nothing that
the client has, or may have, requires what is removed (X43, X44). That is decided for each resource, so a model whose
cluster is refused delays no other. A wait for an ACK is bounded; after it the resource goes out as *overdue*, which is
an error in the log, since a client that never answers must not stay behind for good. If it is refused then, it is sent
once more when what it requires is there.

Quarantine
----------
A NACK is about a response, its cause is mostly one resource. If the message names resources of the response, those are
refused; else the response is sent again in halves until the culprit is alone. The refused version is not sent again
until the content changes (X14). The client keeps what it had of it, and all that requires only that goes on.

Doubt
-----
After a NACK nobody knows which of the other resources the client applied. Until it ACKs them they count as perhaps
there: what they require is not removed, and nothing that requires them is sent in reliance on them (X42).

The life of one resource at one client
--------------------------------------
What can be said of one name of one type. Where the dialects differ this is delta.

unwanted       the client does not ask for it
pending        it exists and was not sent: an earlier response waits for its answer
waiting        it was not sent, since what it requires is not ACKed; there is a time limit
withheld       it was not sent, since what it requires was refused, and what the client has works
sent           a response that brings it waits for its answer
acknowledged   the client ACKed the current content
refused        the client refused the current content; what it had before it still has
doubtful       it was in a refused response that others may be to blame for, and is to be sent again
leaving        it no longer exists, and the client has something that requires it
removing       a response that removes it, or says that there is none, waits for its answer
absent         it does not exist, and the client knows

What happens in each state, what is the next one, and what is sent at that moment (a test plays every line):

============  ==========================================  ============  =============
state         event                                       next state    what is sent
============  ==========================================  ============  =============
unwanted      it is subscribed to and exists              sent          the resource
unwanted      it is subscribed to and does not exist      removing      its name
unwanted      it is created                               unwanted      nothing
unwanted      the client claims the current version       acknowledged  nothing
unwanted      the client claims another version           sent          the resource
unwanted      the client claims what is gone              leaving       nothing
pending       ACK of the response before                  sent          the resource
sent          ACK                                         acknowledged  nothing
sent          NACK that blames it                         refused       nothing
sent          NACK that blames another                    sent          the resource
sent          NACK that blames nobody, its half is first  sent          the resource
sent          NACK that blames nobody, its half is last   doubtful      nothing
sent          the content changes                         sent          nothing
sent          ACK after the content changed               sent          the resource
sent          a request with an old nonce                 sent          nothing
sent          it is unsubscribed from                     unwanted      nothing
doubtful      ACK of the other half                       sent          the resource
doubtful      ACK of the other half after it was deleted  removing      its name
acknowledged  the content changes                         sent          the resource
acknowledged  it changes and requires what is to come     waiting       nothing
acknowledged  it is subscribed to once more               sent          the resource
acknowledged  it is unsubscribed from                     unwanted      nothing
acknowledged  it is deleted and nothing requires it       removing      its name
acknowledged  it is deleted and something requires it     leaving       nothing
waiting       what it requires is ACKed                   sent          the resource
waiting       the wait is over                            sent          the resource
waiting       what it requires is refused                 withheld      nothing
withheld      a long time passes                          withheld      nothing
withheld      what it requires is mended and ACKed        sent          the resource
refused       a long time passes                          refused       nothing
refused       the same content is published               refused       nothing
refused       the content changes                         sent          the resource
refused       the last good content is published          sent          the resource
refused       it is deleted                               removing      its name
leaving       the last that requires it is gone           removing      its name
leaving       it is created again as it was               acknowledged  nothing
removing      ACK                                         absent        nothing
removing      it is created                               removing      nothing
removing      ACK after it was created                    sent          the resource
absent        it is created                               sent          the resource
absent        it is created behind another response       pending       nothing
absent        it is subscribed to once more               removing      its name
absent        it is unsubscribed from                     unwanted      nothing
============  ==========================================  ============  =============
"""
