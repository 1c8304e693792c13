/*
 * The part of DPDK that Rust cannot bind: inline functions, thread-locals, and structures whose
 * fields were regrouped between 22.11 and 24.11. A call on the packet path takes a whole burst.
 *
 * Functions return what DPDK's own do: 0 or a count, or a negative errno.
 */
#ifndef SHARDWALL_SHIM_H
#define SHARDWALL_SHIM_H

#include <stddef.h>
#include <stdint.h>

struct rte_mbuf;
struct rte_mempool;

/* The packet path: one call a burst. */

uint16_t sw_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **pkts, uint16_t n);
uint16_t sw_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **pkts, uint16_t n);
/* All n or none: 0, or -ENOENT. */
int sw_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **pkts, unsigned int n);
void sw_pktmbuf_free_bulk(struct rte_mbuf **pkts, unsigned int n);

/* Thread-locals. */

int sw_errno(void);
/* UINT32_MAX for a thread that DPDK does not know. */
unsigned int sw_lcore_id(void);

/* Logging: lines go to stderr, and the last of them are kept for error texts. */

int sw_log_open(void);
void sw_log_clear(void);
/* Copies the kept text, without a terminating zero, and says how long it was. */
size_t sw_log_tail(char *to, size_t size);

/* Ports. */

#define SW_NAME_LEN 64
#define SW_RSS_KEY_MAX 64

struct sw_port_caps {
	char device[SW_NAME_LEN];
	char driver[SW_NAME_LEN];
	char if_name[SW_NAME_LEN]; /* of the kernel's end; empty when there is none */
	uint32_t if_index;
	int32_t socket; /* -1 when the device belongs to no node */
	uint16_t max_rx_queues;
	uint16_t max_tx_queues;
	uint16_t min_mtu;
	uint16_t max_mtu;
	uint16_t reta_size;
	uint8_t hash_key_size;
	uint8_t mac[6];
	uint8_t scatter; /* a frame may come in several buffers */
	uint8_t multi_segs; /* and leave in several */
	uint64_t rss_hf; /* of the kinds in SW_RSS_KINDS, those that it can */
};

struct sw_port_conf {
	uint16_t rx_queues;
	uint16_t tx_queues;
	uint16_t mtu; /* 0: the default */
	uint8_t scatter; /* a frame may need several buffers */
	uint64_t rss_hf; /* 0: no RSS */
	uint8_t rss_key_len; /* 0: the device's own key */
	uint8_t rss_key[SW_RSS_KEY_MAX];
};

/* What a port says that it hashes, and by which key. */
struct sw_port_rss {
	uint64_t rss_hf;
	uint8_t key_len; /* 0: it does not say */
	uint8_t key[SW_RSS_KEY_MAX];
};

struct sw_xstat {
	char name[SW_NAME_LEN];
	uint64_t value;
};

struct sw_port_stats {
	uint64_t ipackets;
	uint64_t opackets;
	uint64_t ibytes;
	uint64_t obytes;
	uint64_t imissed;
	uint64_t ierrors;
	uint64_t oerrors;
	uint64_t rx_nombuf;
};

struct sw_port_link {
	uint32_t speed_mbps; /* UINT32_MAX when unknown */
	uint8_t up;
	uint8_t full_duplex;
};

/* The port that `device` (a PCI address or a virtual device's name) made, the `nth` of them. */
int sw_port_find(const char *device, unsigned int nth, uint16_t *port);
int sw_port_caps(uint16_t port, struct sw_port_caps *caps);
int sw_port_configure(uint16_t port, const struct sw_port_conf *conf);
int sw_port_rss(uint16_t port, struct sw_port_rss *rss);
int sw_port_rss_set(uint16_t port, const struct sw_port_rss *rss);
/* The indirection table, `size` entries of it; -ENOTSUP for a port without one. */
int sw_port_reta_set(uint16_t port, const uint16_t *queues, uint16_t size);
int sw_port_reta_get(uint16_t port, uint16_t *queues, uint16_t size);
int sw_port_stats(uint16_t port, struct sw_port_stats *stats);
/* The driver's own counters: how many there are, of which the first `n` are written. */
int sw_port_xstats(uint16_t port, struct sw_xstat *stats, unsigned int n);
int sw_port_link(uint16_t port, struct sw_port_link *link);
/* Stops and closes the port, and detaches its device with the last port on it. */
int sw_port_remove(uint16_t port);

#endif
