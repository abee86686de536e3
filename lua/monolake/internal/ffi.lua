--- The accessors of src/script/access.h, declared to LuaJIT.
local ffi = require "ffi"

ffi.cdef [[
struct script_text { const char *ptr; size_t len; };

int script_request_text(intptr_t request, uint32_t generation, int field, struct script_text *out);
double script_request_number(intptr_t request, uint32_t generation, int field);
int script_request_set(intptr_t request, uint32_t generation, int field, const char *text,
                       size_t len);
int script_request_log(intptr_t request, uint32_t generation, const char *name, const char *text,
                       size_t len, int plain);
int script_param(intptr_t request, uint32_t generation, const char *name, size_t len,
                 struct script_text *out);
int script_param_at(intptr_t request, uint32_t generation, unsigned index,
                    struct script_text *name, struct script_text *out);
int script_header_get(intptr_t request, uint32_t generation, intptr_t message, int part,
                      const char *name, size_t name_len, struct script_text *out);
int script_header_set(intptr_t request, uint32_t generation, intptr_t message, int part,
                      const char *name, size_t name_len, const char *value, size_t value_len);
int script_header_add(intptr_t request, uint32_t generation, intptr_t message, int part,
                      const char *name, size_t name_len, const char *value, size_t value_len);
int script_header_remove(intptr_t request, uint32_t generation, intptr_t message, int part,
                         const char *name, size_t name_len);
int script_header_next(intptr_t request, uint32_t generation, intptr_t message, int part,
                       uint32_t *at, struct script_text *name, struct script_text *value);
int script_response_status(intptr_t request, uint32_t generation, intptr_t response);
int script_response_set_status(intptr_t request, uint32_t generation, intptr_t response,
                               int status);
int script_response_error(intptr_t request, uint32_t generation, intptr_t response,
                          struct script_text *out);
double script_response_make(intptr_t request, uint32_t generation, int status, const char *type,
                            size_t type_len, const char *body, size_t body_len);
double script_response_fail(intptr_t request, uint32_t generation, int status, const char *why,
                            size_t why_len);
int script_body_set(intptr_t request, uint32_t generation, intptr_t message, const char *bytes,
                    size_t len);
double script_body_address(intptr_t request, uint32_t generation, intptr_t message, int take);
int script_body_busy(intptr_t request, uint32_t generation);
int script_body_stream(intptr_t request, uint32_t generation, intptr_t message, int index,
                       int map);
int script_conn_state(intptr_t request, uint32_t generation, intptr_t response);
int script_conn_end(intptr_t request, uint32_t generation, int reset);
int script_conn_serve(intptr_t request, uint32_t generation, void *http);
int script_conn_is_flow(intptr_t request, uint32_t generation);
int script_conn_datagram(intptr_t request, uint32_t generation, struct script_text *out);
int script_conn_watch(intptr_t request, uint32_t generation);
struct script_shared { int type; double number; const char *ptr; size_t len; };
int script_shared_get(intptr_t dict, const char *key, size_t len, struct script_shared *out);
int script_shared_put(intptr_t dict, int how, const char *key, size_t len,
                      const struct script_shared *value, double ttl_ms);
int script_shared_incr(intptr_t dict, const char *key, size_t len, double by, int has_init,
                       double init, double ttl_ms, struct script_shared *out);
int script_shared_delete(intptr_t dict, const char *key, size_t len);
int script_shared_ttl(intptr_t dict, const char *key, size_t len, double *left_ms);
int script_shared_expire(intptr_t dict, const char *key, size_t len, double ttl_ms);
int script_shared_flush(intptr_t dict);
int script_shared_stats(intptr_t dict, double *out);
int script_cidr_text(intptr_t set, const char *text, size_t len);
int script_cidr_request(intptr_t set, intptr_t request, uint32_t generation);
int script_thrift_text(intptr_t request, uint32_t generation, intptr_t message, int field,
                       struct script_text *out);
int script_thrift_seqid(intptr_t request, uint32_t generation, intptr_t message, int32_t *seqid);
int script_thrift_options(intptr_t request, uint32_t generation, double *idempotent,
                          double *timeout_ms);
double script_thrift_exception(intptr_t request, uint32_t generation, int kind, const char *text,
                               size_t len);
double script_fetch_begin(intptr_t request, uint32_t generation, double timeout_ms,
                          uint32_t *own_generation);
double script_now(void);
double script_clock(void);
]]

return ffi.C
