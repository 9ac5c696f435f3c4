"""The stages of dvc.yaml from the export on; imported by nobody."""

from serving.contract.errors import end_on_interrupt

end_on_interrupt()
