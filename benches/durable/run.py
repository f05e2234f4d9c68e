#!/usr/bin/env python3
"""Selvedge beside other messaging servers, as one table in Markdown.

    ./run.py HARNESS [--selvedge BINARY] [--reps 3] [--secs 4] [contender ...]

HARNESS is the folder of the harness (run.py, report.py, src/bin/msgbench.rs). A copy of it gets Selvedge's
contender (selvedge.rs beside this file) and is built in BENCH_DIR; the folder must be on the disk to be measured.
Contenders: selvedge-pipeline selvedge-http redis-always nats-always nats postgres rabbitmq rabbitmq-quorum;
without any, all whose server is found.
"""
import argparse, importlib.util, json, os, re, shutil, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
# What only the harness's other programs need.
NOT_NEEDED = r"^(rusqlite|redb|fjall|restate-sdk|temporalio-\w+) = .*\n"
FOUND_BY = {"redis": ("redis-server", "REDIS_SERVER"), "nats": ("nats-server", "NATS_SERVER"),
            "rabbitmq": ("rabbitmq-server", "RABBITMQ_SERVER"), "postgres": ("postgres", "PG_BIN")}


def prepare(harness, to):
    """A copy of the harness with our contender, and only the messaging part."""
    shutil.copytree(harness, to, dirs_exist_ok=True, ignore=shutil.ignore_patterns("target", "results*"))
    for folder, _, files in os.walk(to):
        for path in [folder] + [os.path.join(folder, file) for file in files]:
            os.chmod(path, os.stat(path).st_mode | 0o200)
    shutil.copy(os.path.join(HERE, "selvedge.rs"), os.path.join(to, "src", "bin", "selvedge.rs"))
    path = os.path.join(to, "src", "bin", "msgbench.rs")
    text = open(path).read()
    arm = '        "http" => '
    if arm not in text:
        sys.exit(f"{path} has no place for a contender")
    text = text.replace(arm, '        "selvedge" => Arc::new(selvedge::Pipeline(a.url.clone())),\n' + arm, 1)
    open(path, "w").write(text.replace("use anyhow::", "mod selvedge;\nuse anyhow::", 1))
    path = os.path.join(to, "Cargo.toml")
    text = re.sub(NOT_NEEDED, "", open(path).read(), flags=re.M)
    text = re.sub(r'\[\[bin\]\]\nname = "(?!msgbench).*\npath = .*\n', "", text)
    # A workspace of its own, wherever it lies, and of its programs the one.
    text = text.replace("publish = false", "publish = false\nautobins = false", 1) + "\n[workspace]\n"
    open(path, "w").write(text)
    subprocess.run(["cargo", "build", "--release", "--bin", "msgbench"], cwd=to, check=True)


def selvedge(bench, binary, name, target):
    def start(_, folder):
        port = bench.port()
        os.makedirs(folder, exist_ok=True)
        file = os.path.join(folder, "selvedge.yaml")
        text = open(os.path.join(HERE, "selvedge.yaml")).read()
        open(file, "w").write(text.replace("@DIR@", folder).replace("@PORT@", str(port)))
        begun = time.time()
        server = bench.spawn([binary, "run", file], folder)
        bench.wait(lambda: bench.http("GET", f"http://127.0.0.1:{port}/v1/topics/bench/groups/g"), server)
        env = {"HTTP_PUBLISH": "POST /v1/topics/bench/messages", "HTTP_ACK": "POST /v1/topics/bench/groups/g/ack",
               "HTTP_FETCH": "POST /v1/topics/bench/groups/g/receive?max={max}&wait=200ms&data=base64"}
        return bench.Server(name, server, f"http://127.0.0.1:{port}", folder, time.time() - begun, target, env=env)
    return start


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("harness")
    args.add_argument("contenders", nargs="*")
    args.add_argument("--selvedge", default=os.path.join(HERE, "..", "..", "target", "release", "selvedge"))
    args.add_argument("--reps", default="3")
    args.add_argument("--secs", default="4")
    args.add_argument("--levels", default="1,32,256")
    args = args.parse_args()
    base = os.environ.setdefault("BENCH_DIR", tempfile.mkdtemp(prefix="durable-bench-"))
    copy = os.path.join(base, "harness")
    prepare(args.harness, copy)
    os.environ["BENCH_BIN"] = os.path.join(copy, "target", "release")
    out = os.environ.setdefault("BENCH_OUT", os.path.join(base, "results.jsonl"))
    spec = importlib.util.spec_from_file_location("bench", os.path.join(copy, "run.py"))
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    binary = os.path.abspath(args.selvedge)
    bench.MSG["selvedge-pipeline"] = selvedge(bench, binary, "selvedge-pipeline", "selvedge")
    bench.MSG["selvedge-http"] = selvedge(bench, binary, "selvedge-http", "http")
    found = lambda name, program, variable: os.environ.get(variable) or shutil.which(program)
    peers = [name for name in ("redis-always", "nats-always", "nats", "postgres", "rabbitmq", "rabbitmq-quorum")
             if found(name, *FOUND_BY[name.split("-")[0]])]
    names = args.contenders or ["selvedge-pipeline", "selvedge-http"] + peers
    sys.argv = ["run.py", "msg", *names, "--reps", args.reps, "--secs", args.secs, "--levels", args.levels]
    bench.main()
    # A run that measured nothing has no place in a table; its error was printed.
    rows = [line for line in open(out) if (row := json.loads(line)).get("op") != "consume" or row.get("consumed")]
    open(out, "w").writelines(rows)
    table = subprocess.run([sys.executable, os.path.join(copy, "report.py"), out], check=True, capture_output=True, text=True)
    text = "\n".join(part for part in re.split(r"(?=^### )", table.stdout, flags=re.M) if part.count("\n|") > 2)
    file = os.path.join(base, "table.md")
    open(file, "w").write(text)
    print(f"{text}\n{file}")


main()
