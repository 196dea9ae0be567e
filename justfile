# Every command of the project. `just` is a convenience: each recipe is one line that works without it.

# Lists the recipes.
default:
    @just --list

# Starts Bennu in the development setting.
run *arguments:
    cargo run --release -- {{arguments}}

# Everything that must hold; or only the stages named, such as `just test lint rust`.
test *stages:
    ./scripts/test.sh {{stages}}

# The quick half of the tests: formatting, lints, the pure protocol.
check:
    ./scripts/test.sh format lint pure

# The stock clients and the page, against a fresh build.
clients:
    ./scripts/test.sh install build clients

# Installs what the tests need.
install:
    ./scripts/install.sh

# Formats the Rust sources.
fmt:
    cargo fmt --all

# The application that the recorded conversations talk to.
reference port="4100":
    cargo run --release --example reference -- --port {{port}}
