"""Images from and to registries: OCI distribution-spec 1.1 and Docker's registry API version 2."""
