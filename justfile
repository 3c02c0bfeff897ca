# What is done often; `just` lists it. Nothing here is more than a name for a command.

# A volume's whole life on this machine
try:
    cargo run --release -- try

# Every test, as root; `just test quick` leaves NFS out
test *ARGUMENTS:
    tests/run {{ARGUMENTS}}

# The static program for an empty image
static:
    cargo static

# The image, as target/image/kuration.tar
image *ARGUMENTS:
    deploy/image/build {{ARGUMENTS}}

# The end-to-end tests in a real Kubernetes, as root
e2e *ARGUMENTS:
    tests/cluster/e2e {{ARGUMENTS}}

# Kubernetes' own storage suite, as root
kubernetes-suite *ARGUMENTS:
    tests/kubernetes-suite {{ARGUMENTS}}

# How fast it is on real NFS, as root
measure *ARGUMENTS:
    tests/measure {{ARGUMENTS}}

# How fast inspections are, and what they take, as root
measure-inspector *ARGUMENTS:
    tests/measure-inspector {{ARGUMENTS}}

# Help texts and other committed files that are generated
golden:
    HELM=${HELM:-$(tests/cluster/build helm)} UPDATE_GOLDEN=1 cargo test --test golden_help --test charts

# The chart, the manifests and the examples, without a cluster
charts:
    HELM=${HELM:-$(tests/cluster/build helm)} cargo test --test charts

# Install the chart where kubectl points
install *ARGUMENTS:
    helm upgrade --install kuration charts/kuration-csi --namespace kuration-system --create-namespace {{ARGUMENTS}}
