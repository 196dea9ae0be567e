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

# Searches for inputs that break the protocol, with one target of fuzz/ (or all).
fuzz target seconds="600":
    ./scripts/fuzz.sh run {{target}} {{seconds}}

# Ten minutes of every target.
fuzz-all:
    ./scripts/fuzz.sh run all 600

# Minimises what the search has found into the committed corpus.
fuzz-keep target="all":
    ./scripts/fuzz.sh keep {{target}}

# Random conversations beside the model, from a random seed on; the ordinary tests play a few thousand. See tests/kit/model.
model cases="200000":
    BENNU_CASES={{cases}} cargo test --release --test kit -- --nocapture random_conversations

# Far more connections that break off than the tests make; what is held afterwards is what was held before.
churn visits="1000000":
    BENNU_CHURN_VISITS={{visits}} cargo test --test churn ten_thousand -- --nocapture

# MCP servers behind this one that are killed and hung under load, for longer than the tests do; the seed is printed.
chaos seconds="60":
    BENNU_CHAOS_SECONDS={{seconds}} cargo test --test server chaos -- --nocapture

# Attacks on who may connect: guessing, floods beside somebody's calls, junk, secrets in logs; what was measured is printed.
attacks:
    cargo test --test server security::attack -- --nocapture

# Topics that resume, at random beside their model: shards, cuts, slow clients, restarts.
history times="100":
    BENNU_HISTORY_SEEDS_TIMES={{times}} cargo test --release --lib protocol::history -- --nocapture

# Workflows at random beside their model, with crashes at random, for many times the seeds that the tests take.
workflows times="100":
    BENNU_WORKFLOW_SEEDS_TIMES={{times}} cargo test --release --lib stepper -- --nocapture

# Queues at random beside their model, with crashes at random, in memory and in a file, for many times the seeds that the tests take.
queues times="100":
    BENNU_QUEUE_SEEDS_TIMES={{times}} cargo test --release --test protocol queue -- --nocapture
    BENNU_QUEUES_SEEDS_TIMES={{times}} cargo test --release --lib queue::tests::model -- --nocapture

# A session's log, tokens, calls and attachments at random beside their model, for many times the seeds that the tests take.
recovery times="100":
    BENNU_RECOVERY_SEEDS_TIMES={{times}} cargo test --release --test protocol recovery -- --nocapture

# The program killed under load, 320 times for each of `times`; the seeds are printed.
crash times="15":
    BENNU_CRASH_TIMES={{times}} cargo test --test server queue::crash -- --nocapture

# Crashes of the store's file at random moments, for many times the seeds that the tests take.
store times="100":
    BENNU_STORE_SEEDS_TIMES={{times}} cargo test --release --lib store::tests::images -- --nocapture

# The long searches, which no test run waits for: every fuzzer, random conversations beside their model, connections that
# break off, upstreams that are killed, topics that resume, workflows with crashes, queues, the program killed under load, crashes of
# the store's file.
soak: fuzz-all model churn chaos history workflows queues recovery crash store
    SANITIZER=address ./scripts/fuzz.sh run websocket_frames 600
