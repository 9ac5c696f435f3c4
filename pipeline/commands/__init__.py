"""Commands beside the stages; imported by nobody but each other's tests."""

from serving.contract.errors import end_on_interrupt

end_on_interrupt()
