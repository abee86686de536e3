--- What goes wrong in a layer: a programmer's mistake (a plain error), a request that was cancelled,
--- or a failure of a message that has an answer of its own (413 for a body that is too large).
local errors = {}

local Failure = {}
Failure.__index = Failure
Failure.__tostring = function(self)
   return self.message
end

--- Raised out of every wait once the client is gone; layers may catch it to clean up.
errors.cancelled = setmetatable({
   status = 499,
   message = "the request was cancelled: its client is gone",
}, Failure)

--- @param status integer what the client is answered if no layer catches it
--- @param message string
function errors.failure(status, message)
   return setmetatable({ status = status, message = message }, Failure)
end

function errors.is_failure(value)
   return getmetatable(value) == Failure
end

-- Values of <errno.h> on Linux.
local EIO, ENOMEM, EINVAL, EPROTO, EMSGSIZE = 5, 12, 22, 71, 90
local ECONNRESET, ETIMEDOUT, ECANCELED = 104, 110, 125

local of_request = {
   [EIO] = errors.failure(500, "a layer that makes the request body failed"),
   [EMSGSIZE] = errors.failure(413, "the request body is too large"),
   [ETIMEDOUT] = errors.failure(408, "the request body did not arrive in time"),
   [EPROTO] = errors.failure(400, "the request body is malformed"),
   [ECONNRESET] = errors.cancelled,
   [ECANCELED] = errors.cancelled,
}
local of_response = {
   [EIO] = errors.failure(500, "a layer that makes the response body failed"),
   [EMSGSIZE] = errors.failure(502, "the response body is too large"),
   [ETIMEDOUT] = errors.failure(504, "the response body did not arrive in time"),
   [EPROTO] = errors.failure(502, "the response body is malformed"),
   [ECONNRESET] = errors.failure(502, "the response body broke off"),
   [ECANCELED] = errors.cancelled,
}

--- Raises what a failed read of a body means.
--- @param code integer a negative errno
--- @param is_request boolean
function errors.raise_body(code, is_request)
   local failure = (is_request and of_request or of_response)[-code]
   if failure then
      error(failure, 0)
   elseif -code == EINVAL then
      error("a body can be read only in the layers of its own request, and not by a function that makes it",
         3)
   elseif -code == ENOMEM then
      error(errors.failure(503, "out of memory"), 0)
   end
   error("reading a body failed with error " .. code, 3)
end

-- Results of the accessors: src/script/access.h.
local OVER, INVALID = -1, -2

--- Raises what a negative result of an accessor means, at the line of the script that used it.
--- @param code integer
--- @param what string|nil what was to be changed, for invalid values
--- @param level integer|nil
function errors.raise_access(code, what, level)
   level = (level or 2) + 1
   if code == OVER then
      error("request handle used after its request ended", level)
   elseif code == INVALID then
      error(what or "invalid value", level)
   end
   error(errors.failure(503, "out of memory"), 0)
end

return errors
