"""The stages of dvc.yaml before the export; imported by nobody."""

from serving.contract.errors import end_on_interrupt

end_on_interrupt()
