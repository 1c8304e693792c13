#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <net/if.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

/* The view of an mbuf that src/mbuf.rs writes down. */
_Static_assert(sizeof(struct rte_mbuf) == 128, "an mbuf is two cache lines");
_Static_assert(_Alignof(struct rte_mbuf) == 64, "an mbuf starts on a cache line");
#define AT(field, offset, size)                                                                    \
	_Static_assert(offsetof(struct rte_mbuf, field) == (offset), #field " has moved");         \
	_Static_assert(sizeof(((struct rte_mbuf *)0)->field) == (size), #field " changed size")
AT(buf_addr, 0, 8);
AT(data_off, 16, 2);
AT(refcnt, 18, 2);
AT(nb_segs, 20, 2);
AT(port, 22, 2);
AT(ol_flags, 24, 8);
AT(packet_type, 32, 4);
AT(pkt_len, 36, 4);
AT(data_len, 40, 2);
AT(vlan_tci, 42, 2);
AT(hash.rss, 44, 4);
AT(vlan_tci_outer, 52, 2);
AT(buf_len, 54, 2);
AT(pool, 56, 8);

/* What the packet path reads of ol_flags, written down in its mempool.rs. */
_Static_assert(RTE_MBUF_F_RX_RSS_HASH == 1ULL << 1, "flag has moved");
_Static_assert(RTE_MBUF_F_RX_L4_CKSUM_BAD == 1ULL << 3, "flag has moved");
_Static_assert(RTE_MBUF_F_RX_L4_CKSUM_GOOD == 1ULL << 8, "flag has moved");
_Static_assert(RTE_MBUF_F_RX_L4_CKSUM_NONE == (1ULL << 3 | 1ULL << 8), "flag has moved");

uint16_t sw_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **pkts, uint16_t n)
{
	return rte_eth_rx_burst(port, queue, pkts, n);
}

uint16_t sw_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **pkts, uint16_t n)
{
	return rte_eth_tx_burst(port, queue, pkts, n);
}

int sw_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **pkts, unsigned int n)
{
	return rte_pktmbuf_alloc_bulk(pool, pkts, n);
}

void sw_pktmbuf_free_bulk(struct rte_mbuf **pkts, unsigned int n)
{
	rte_pktmbuf_free_bulk(pkts, n);
}

int sw_errno(void)
{
	return rte_errno;
}

unsigned int sw_lcore_id(void)
{
	return rte_lcore_id();
}

/*
 * What is hashed: addresses and ports of TCP and UDP, addresses of whatever else. Not the IPv6 kinds
 * that look for home addresses in extension headers (_EX): what they find is in no tuple.
 */
#define SW_RSS_KINDS                                                                               \
	(RTE_ETH_RSS_IPV4 | RTE_ETH_RSS_FRAG_IPV4 | RTE_ETH_RSS_NONFRAG_IPV4_OTHER |               \
	 RTE_ETH_RSS_NONFRAG_IPV4_TCP | RTE_ETH_RSS_NONFRAG_IPV4_UDP | RTE_ETH_RSS_IPV6 |          \
	 RTE_ETH_RSS_FRAG_IPV6 | RTE_ETH_RSS_NONFRAG_IPV6_OTHER | RTE_ETH_RSS_NONFRAG_IPV6_TCP |   \
	 RTE_ETH_RSS_NONFRAG_IPV6_UDP)
/* Those of which port.rs knows the bits. */
_Static_assert(RTE_ETH_RSS_NONFRAG_IPV4_TCP == 1ULL << 4, "kind has moved");
_Static_assert(RTE_ETH_RSS_NONFRAG_IPV4_UDP == 1ULL << 5, "kind has moved");
_Static_assert(RTE_ETH_RSS_NONFRAG_IPV6_TCP == 1ULL << 10, "kind has moved");
_Static_assert(RTE_ETH_RSS_NONFRAG_IPV6_UDP == 1ULL << 11, "kind has moved");

/* A ring would keep more than is read: what does not fit pushes the oldest half out. */
static struct {
	pthread_mutex_t lock;
	size_t len;
	char text[2048];
} kept = { .lock = PTHREAD_MUTEX_INITIALIZER };

/*
 * What is logged as an error and is none: the tap driver looks for secondary processes, which
 * cannot exist, whenever it starts or stops.
 */
static int is_noise(const char *buf, size_t size)
{
	static const char noise[] = "tap_mp_req_on_rxtx()";

	return memmem(buf, size, noise, sizeof(noise) - 1) != NULL;
}

static ssize_t log_write(void *cookie, const char *buf, size_t size)
{
	const size_t half = sizeof(kept.text) / 2;
	size_t done = 0;

	(void)cookie;
	if (is_noise(buf, size))
		return (ssize_t)size;
	pthread_mutex_lock(&kept.lock);
	if (kept.len + size > sizeof(kept.text) && kept.len > half) {
		memmove(kept.text, kept.text + kept.len - half, half);
		kept.len = half;
	}
	if (kept.len + size <= sizeof(kept.text)) {
		memcpy(kept.text + kept.len, buf, size);
		kept.len += size;
	}
	pthread_mutex_unlock(&kept.lock);

	while (done < size) {
		ssize_t n = write(STDERR_FILENO, buf + done, size - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break; /* nowhere to complain; losing a line beats stopping */
		done += (size_t)n;
	}
	return (ssize_t)size;
}

int sw_log_open(void)
{
	static FILE *stream;

	if (stream == NULL) {
		const cookie_io_functions_t io = { .write = log_write };

		stream = fopencookie(NULL, "w", io);
		if (stream == NULL)
			return -ENOMEM;
		setvbuf(stream, NULL, _IOLBF, 1024);
	}
	return rte_openlog_stream(stream);
}

void sw_log_clear(void)
{
	pthread_mutex_lock(&kept.lock);
	kept.len = 0;
	pthread_mutex_unlock(&kept.lock);
}

size_t sw_log_tail(char *to, size_t size)
{
	size_t len;

	pthread_mutex_lock(&kept.lock);
	len = kept.len < size ? kept.len : size;
	memcpy(to, kept.text + kept.len - len, len);
	pthread_mutex_unlock(&kept.lock);
	return len;
}

int sw_port_find(const char *device, unsigned int nth, uint16_t *port)
{
	uint16_t p;

	RTE_ETH_FOREACH_DEV(p) {
		struct rte_eth_dev_info info;

		if (rte_eth_dev_info_get(p, &info) != 0 || info.device == NULL)
			continue;
		if (strcmp(rte_dev_name(info.device), device) != 0)
			continue;
		if (nth-- == 0) {
			*port = p;
			return 0;
		}
	}
	return -ENODEV;
}

int sw_port_caps(uint16_t port, struct sw_port_caps *caps)
{
	struct rte_eth_dev_info info;
	struct rte_ether_addr mac;
	int ret = rte_eth_dev_info_get(port, &info);

	if (ret != 0)
		return ret;
	memset(caps, 0, sizeof(*caps));
	if (info.device != NULL)
		snprintf(caps->device, sizeof(caps->device), "%s", rte_dev_name(info.device));
	if (info.driver_name != NULL)
		snprintf(caps->driver, sizeof(caps->driver), "%s", info.driver_name);
	caps->if_index = info.if_index;
	if (info.if_index != 0 && if_indextoname(info.if_index, caps->if_name) == NULL)
		caps->if_name[0] = '\0';
	caps->socket = rte_eth_dev_socket_id(port);
	caps->max_rx_queues = info.max_rx_queues;
	caps->max_tx_queues = info.max_tx_queues;
	caps->min_mtu = info.min_mtu;
	caps->max_mtu = info.max_mtu;
	caps->reta_size = info.reta_size;
	caps->hash_key_size = info.hash_key_size;
	caps->scatter = (info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_SCATTER) != 0;
	caps->multi_segs = (info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MULTI_SEGS) != 0;
	caps->rss_hf = info.flow_type_rss_offloads & SW_RSS_KINDS;
	if (rte_eth_macaddr_get(port, &mac) == 0)
		memcpy(caps->mac, mac.addr_bytes, sizeof(caps->mac));
	return 0;
}

int sw_port_configure(uint16_t port, const struct sw_port_conf *conf)
{
	struct rte_eth_dev_info info;
	struct rte_eth_conf eth;
	uint8_t key[SW_RSS_KEY_MAX];
	int ret = rte_eth_dev_info_get(port, &info);

	if (ret != 0)
		return ret;
	memset(&eth, 0, sizeof(eth));
	eth.rxmode.mtu = conf->mtu;
	/* A buffer may come from any pool, so that fast free is out; chains are wanted. */
	eth.txmode.offloads = RTE_ETH_TX_OFFLOAD_MULTI_SEGS & info.tx_offload_capa;
	/* Devices that look at transport checksums say what they found in ol_flags. A tap has no
	 * hardware that could: its driver reads the packet on this core, as the packet path would. And
	 * virtio's asks the host for packets whose checksum nobody has filled in yet, which would be
	 * broken where they leave. */
	if (info.driver_name == NULL ||
	    (strcmp(info.driver_name, "net_tap") != 0 && strncmp(info.driver_name, "net_virtio", 10) != 0))
		eth.rxmode.offloads = (RTE_ETH_RX_OFFLOAD_TCP_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM) &
				      info.rx_offload_capa;
	if (conf->scatter)
		eth.rxmode.offloads |= RTE_ETH_RX_OFFLOAD_SCATTER & info.rx_offload_capa;
	if (conf->rss_hf != 0) {
		eth.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
		/* The hash in the mbuf, where the driver has it. */
		eth.rxmode.offloads |= RTE_ETH_RX_OFFLOAD_RSS_HASH & info.rx_offload_capa;
		eth.rx_adv_conf.rss_conf.rss_hf = conf->rss_hf;
		if (conf->rss_key_len != 0 && conf->rss_key_len <= sizeof(key)) {
			memcpy(key, conf->rss_key, conf->rss_key_len);
			eth.rx_adv_conf.rss_conf.rss_key = key;
			eth.rx_adv_conf.rss_conf.rss_key_len = conf->rss_key_len;
		}
	}
	return rte_eth_dev_configure(port, conf->rx_queues, conf->tx_queues, &eth);
}

int sw_port_rss(uint16_t port, struct sw_port_rss *rss)
{
	struct rte_eth_dev_info info;
	struct rte_eth_rss_conf conf;
	int ret = rte_eth_dev_info_get(port, &info);

	if (ret != 0)
		return ret;
	memset(rss, 0, sizeof(*rss));
	memset(&conf, 0, sizeof(conf));
	/* A driver writes as much as its key is long; 40 bytes if it does not say. */
	if (info.hash_key_size <= sizeof(rss->key)) {
		conf.rss_key = rss->key;
		conf.rss_key_len = info.hash_key_size != 0 ? info.hash_key_size : 40;
	}
	ret = rte_eth_dev_rss_hash_conf_get(port, &conf);
	if (ret != 0)
		return ret;
	rss->rss_hf = conf.rss_hf;
	rss->key_len = conf.rss_key != NULL ? conf.rss_key_len : 0;
	return 0;
}

int sw_port_rss_set(uint16_t port, const struct sw_port_rss *rss)
{
	uint8_t key[SW_RSS_KEY_MAX];
	struct rte_eth_rss_conf conf;

	memset(&conf, 0, sizeof(conf));
	conf.rss_hf = rss->rss_hf;
	if (rss->key_len != 0 && rss->key_len <= sizeof(key)) {
		memcpy(key, rss->key, rss->key_len);
		conf.rss_key = key;
		conf.rss_key_len = rss->key_len;
	}
	return rte_eth_dev_rss_hash_update(port, &conf);
}

#define RETA_GROUPS (RTE_ETH_RSS_RETA_SIZE_512 / RTE_ETH_RETA_GROUP_SIZE)

int sw_port_reta_set(uint16_t port, const uint16_t *queues, uint16_t size)
{
	struct rte_eth_rss_reta_entry64 groups[RETA_GROUPS];
	uint16_t i;

	if (size > RETA_GROUPS * RTE_ETH_RETA_GROUP_SIZE)
		return -EINVAL;
	memset(groups, 0, sizeof(groups));
	for (i = 0; i < size; i++) {
		struct rte_eth_rss_reta_entry64 *group = &groups[i / RTE_ETH_RETA_GROUP_SIZE];

		group->mask |= 1ULL << i % RTE_ETH_RETA_GROUP_SIZE;
		group->reta[i % RTE_ETH_RETA_GROUP_SIZE] = queues[i];
	}
	return rte_eth_dev_rss_reta_update(port, groups, size);
}

int sw_port_reta_get(uint16_t port, uint16_t *queues, uint16_t size)
{
	struct rte_eth_rss_reta_entry64 groups[RETA_GROUPS];
	uint16_t i;
	int ret;

	if (size > RETA_GROUPS * RTE_ETH_RETA_GROUP_SIZE)
		return -EINVAL;
	memset(groups, 0, sizeof(groups));
	for (i = 0; i < size; i++)
		groups[i / RTE_ETH_RETA_GROUP_SIZE].mask |= 1ULL << i % RTE_ETH_RETA_GROUP_SIZE;
	ret = rte_eth_dev_rss_reta_query(port, groups, size);
	if (ret != 0)
		return ret;
	for (i = 0; i < size; i++)
		queues[i] = groups[i / RTE_ETH_RETA_GROUP_SIZE].reta[i % RTE_ETH_RETA_GROUP_SIZE];
	return 0;
}

int sw_port_xstats(uint16_t port, struct sw_xstat *stats, unsigned int n)
{
	struct rte_eth_xstat_name *names;
	struct rte_eth_xstat *values;
	int count = rte_eth_xstats_get_names(port, NULL, 0);
	int named, got, i;

	if (count <= 0)
		return count;
	names = calloc((size_t)count, sizeof(*names));
	values = calloc((size_t)count, sizeof(*values));
	named = got = -ENOMEM;
	if (names != NULL && values != NULL) {
		named = rte_eth_xstats_get_names(port, names, (unsigned int)count);
		got = rte_eth_xstats_get(port, values, (unsigned int)count);
	}
	/* More than there was room for: they grew meanwhile, and nothing was written. */
	if (named > count || got > count)
		named = got = 0;
	for (i = 0; i < got && (unsigned int)i < n; i++) {
		memset(&stats[i], 0, sizeof(stats[i]));
		if (values[i].id < (uint64_t)named)
			snprintf(stats[i].name, sizeof(stats[i].name), "%s",
				 names[values[i].id].name);
		stats[i].value = values[i].value;
	}
	free(names);
	free(values);
	return named < 0 ? named : got;
}

int sw_port_stats(uint16_t port, struct sw_port_stats *stats)
{
	struct rte_eth_stats s;
	int ret = rte_eth_stats_get(port, &s);

	if (ret != 0)
		return ret;
	stats->ipackets = s.ipackets;
	stats->opackets = s.opackets;
	stats->ibytes = s.ibytes;
	stats->obytes = s.obytes;
	stats->imissed = s.imissed;
	stats->ierrors = s.ierrors;
	stats->oerrors = s.oerrors;
	stats->rx_nombuf = s.rx_nombuf;
	return 0;
}

int sw_port_link(uint16_t port, struct sw_port_link *link)
{
	struct rte_eth_link l;
	int ret;

	memset(&l, 0, sizeof(l));
	ret = rte_eth_link_get_nowait(port, &l);
	if (ret != 0)
		return ret;
	link->speed_mbps = l.link_speed;
	link->up = l.link_status == RTE_ETH_LINK_UP;
	link->full_duplex = l.link_duplex == RTE_ETH_LINK_FULL_DUPLEX;
	return 0;
}

int sw_port_remove(uint16_t port)
{
	struct rte_eth_dev_info info;
	struct rte_device *device = NULL;
	uint16_t other;
	int ret, stopped;

	if (rte_eth_dev_info_get(port, &info) == 0)
		device = (struct rte_device *)(uintptr_t)info.device;
	stopped = rte_eth_dev_stop(port);
	ret = rte_eth_dev_close(port);
	if (device != NULL) {
		RTE_ETH_FOREACH_DEV(other) {
			if (rte_eth_dev_info_get(other, &info) == 0 && info.device == device)
				return ret != 0 ? ret : stopped;
		}
		if (ret == 0)
			ret = rte_dev_remove(device);
	}
	return ret != 0 ? ret : stopped;
}
