"""The only home of system calls: mounts, namespaces, clone, cgroups, seccomp, capabilities, openat2."""
