"""Which artefact runs where: sections `exports`, `compiles`, `targets` and `deploy` of params.yaml."""
