"""Commands beside the stages; imported by nobody."""

from serving.contract.errors import end_on_interrupt

end_on_interrupt()
