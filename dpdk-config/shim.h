/* Functions of shim.c: DPDK's inline functions and macros that the switch calls off its hot path,
 * and calls whose types differ between DPDK 22.11 and 25.11. */
#ifndef VSW_SHIM_H
#define VSW_SHIM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct rte_mbuf;
struct rte_mempool;

/* Receives what DPDK logs; called in the thread that logs. Same contract as write(2). */
typedef ssize_t (*vsw_log_writer)(void *cookie, const char *text, size_t len);

/* Makes `writer` the destination of DPDK's log. 0, or a negative errno. */
int vsw_log_redirect(vsw_log_writer writer);

/* rte_errno of the calling thread. */
int vsw_errno(void);

/* lcore id of the calling thread; UINT32_MAX for a thread that has none. */
uint32_t vsw_lcore_id(void);

/* Frees all segments. */
void vsw_mbuf_free(struct rte_mbuf *m);
/* Frees n packets of any pools. */
void vsw_mbuf_free_bulk(struct rte_mbuf **m, unsigned int n);
/* A copy of the whole frame from the same pool, NULL when that is exhausted. */
struct rte_mbuf *vsw_mbuf_copy(const struct rte_mbuf *m);
/* A new buffer with a copy of len bytes; NULL when the pool is exhausted or the frame too long. */
struct rte_mbuf *vsw_mbuf_from_bytes(struct rte_mempool *pool, const void *data, uint32_t len);

/* First port that `devargs` names. 0, or a negative errno. */
int vsw_port_by_devargs(const char *devargs, uint16_t *port);
/* Whether both ports belong to the same device. */
int vsw_port_same_device(uint16_t a, uint16_t b);
/* Closes the port and, when `detach`, removes the device it belongs to. 0, or a negative errno. */
int vsw_port_close(uint16_t port, int detach);
/* Name of the bus the port's device is on, and what the bus says about it (may be NULL). */
const char *vsw_port_bus(uint16_t port, const char **info);
/* Link state without waiting. 0, or a negative errno. */
int vsw_port_link(uint16_t port, uint32_t *mbps, int *up, int *full_duplex, int *autoneg);

/* Texts of DPDK's dump functions; to be given to free(3). NULL when memory is short. */
char *vsw_dump_lcores(void);
char *vsw_dump_malloc_stats(void);
char *vsw_dump_log_levels(void);
char *vsw_dump_mempool(struct rte_mempool *pool);
char *vsw_dump_all_mempools(void);

#endif
