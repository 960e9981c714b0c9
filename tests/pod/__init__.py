"""The image, built from nothing, and the manifests of deploy/, run as pods by podman."""
