//! What is run.

/// One run of one bench.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) bench: &'static str,
    pub(crate) full: &'static str,
    pub(crate) quick: &'static str,
}

/// Every step, in order.
pub(crate) const STEPS: &[Step] = &[
    // conntrack alone, the whole pure path, and new flows: created, confirmed, expired
    Step {
        name: "conntrack",
        bench: "conntrack",
        // rounds of a few milliseconds, so that what else runs spoils some, and not all
        full: "--flows 1000,100000,1000000 --rounds 200 --packets 65536 --cases \
               chase,tcp,tcp-burst8,tcp-sum,udp,path-tcp,path-notrack,insert,path-insert",
        quick: "--flows 1000,100000 --rounds 20 --packets 65536 --cases chase,tcp,tcp-sum,udp,path-tcp,insert,path-insert",
    },
    Step {
        name: "large",
        bench: "conntrack",
        full: "--flows 10000000 --rounds 100 --packets 65536 --cases chase,tcp,tcp-burst8,udp,insert",
        quick: "--flows 1000000 --rounds 20 --packets 65536 --cases chase,tcp,udp,insert",
    },
    Step {
        name: "scale",
        bench: "conntrack",
        full: "--workers 2 --flows 1000,100000,1000000 --rounds 200 --packets 65536 --cases \
               tcp,path-tcp,insert",
        quick: "--workers 2 --flows 1000,100000 --rounds 20 --packets 65536 --cases tcp,path-tcp,insert",
    },
    Step {
        name: "handoff",
        bench: "conntrack",
        full: "--handoff --flows 1000,100000 --rounds 50",
        quick: "--handoff --flows 1000,100000 --rounds 5",
    },
    // end to end
    Step {
        name: "rig",
        bench: "rig",
        full: "--proto tcp --flows 1000,100000,1000000 --rounds 5",
        quick: "--proto tcp --flows 1000,100000 --rounds 1 --seconds 2 --warm-up 1",
    },
    Step {
        name: "rig-udp",
        bench: "rig",
        full: "--proto udp --who 5tswap,shardwall,ovs-ct --flows 1000,100000 --rounds 5",
        quick: "--proto udp --who 5tswap,shardwall,ovs-ct --flows 1000 --rounds 1 --seconds 2 --warm-up 1",
    },
    Step {
        name: "rig-two",
        bench: "rig",
        full: "--workers 2 --proto tcp --flows 1000,100000 --rounds 5",
        quick: "--workers 2 --proto tcp --flows 100000 --rounds 1 --seconds 2 --warm-up 1",
    },
    Step {
        name: "begin-end",
        bench: "rig",
        full: "--load reset --proto tcp --who 5tswap,shardwall,ovs-ct --flows 100000 --rounds 5",
        quick: "--load reset --proto tcp --who 5tswap,shardwall,ovs-ct --flows 100000 --rounds 1 \
                --seconds 2 --warm-up 2",
    },
    Step {
        name: "begin-full",
        bench: "rig",
        full: "--load full --proto udp --who 5tswap,shardwall --flows 500000 --rounds 5",
        quick: "--load full --proto udp --who 5tswap,shardwall --flows 500000 --rounds 1 --seconds 2 \
                --warm-up 2",
    },
    // the control side, under load
    Step {
        name: "reload",
        bench: "rig",
        full: "--reloads 200 --proto tcp --flows 1000 --seconds 8",
        quick: "--reloads 10 --proto tcp --flows 1000 --seconds 3",
    },
    Step {
        name: "dump",
        bench: "rig",
        full: "--dumps 20 --proto tcp --flows 1000000 --seconds 8 --warm-up 6",
        quick: "--dumps 2 --proto tcp --flows 1000000 --seconds 3 --warm-up 3",
    },
    // policies
    Step {
        name: "classifier",
        bench: "policy",
        full: "--rules 100,1000,10000,100000 --rounds 9",
        quick: "--rules 100,1000,10000 --rounds 3",
    },
    Step {
        name: "peer",
        bench: "policy",
        full: "--peer --rules 100,1000,10000 --rounds 5",
        quick: "--peer --rules 100,1000 --rounds 2",
    },
    Step {
        name: "latency",
        bench: "latency",
        full: "--packets 20000 --rounds 5",
        quick: "--packets 2000 --rounds 2",
    },
];
