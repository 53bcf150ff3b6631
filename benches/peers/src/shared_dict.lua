-- Times ngx.shared.DICT in an nginx worker. `dir` has a file of all keys, `0`, and for each worker one of keys in its order of
-- access, `1` and so on. Keys have 16 bytes. Leaves in `dir` a file `out.` and the worker's number: nanoseconds of a get
-- and of a set, the loop's own time taken off. One worker is timed in processor time, several by the clock.
local ffi = require "ffi"
ffi.cdef "typedef struct { int64_t sec, nsec; } bench_time; int clock_gettime(int, bench_time *);"
local MONOTONIC, THREAD_CPU = 1, 3
local time = ffi.new "bench_time"

local function now(clock)
    ffi.C.clock_gettime(clock, time)
    return tonumber(time.sec) * 1e9 + tonumber(time.nsec)
end

local function keys(dir, number)
    local file = assert(io.open(dir .. "/" .. number, "rb"))
    local all, list = file:read("*a"), {}
    file:close()
    for at = 1, #all, 16 do list[#list + 1] = all:sub(at, at + 15) end
    return list
end

-- Everyone waits here for the others.
local function meet(where, workers)
    local meeting = ngx.shared.meeting
    meeting:incr(where, 1, 0)
    while meeting:get(where) < workers do ngx.sleep(0.001) end
end

local function touch(order)
    local out
    for n = 1, #order do out = order[n] end
    return out
end

local function get(order, dict)
    local out
    for n = 1, #order do out = dict:get(order[n]) end
    return out
end

local function set(order, dict, value)
    local out
    for n = 1, #order do out = dict:set(order[n], value) end
    return out
end

return function(dir, workers)
    local id, dict = ngx.worker.id(), ngx.shared.cache
    local clock = workers == 1 and THREAD_CPU or MONOTONIC
    local all, order = keys(dir, 0), keys(dir, id + 1)
    if id == 0 then
        for n = 1, #all do assert(dict:safe_set(all[n], ("v"):rep(100))) end
    end
    meet("filled", workers)
    get(all, dict)
    local value = ("w"):rep(100)
    local function timed(what, loop)
        loop(order, dict, value)
        collectgarbage()
        meet(what, workers)
        local start = now(clock)
        local out = loop(order, dict, value)
        local took = now(clock) - start
        assert(out, what)
        return took / #order
    end
    local own, got, stored = timed("touch", touch), timed("get", get), timed("set", set)
    local out = assert(io.open(dir .. "/out." .. id .. ".new", "w"))
    out:write(("%.2f %.2f\n"):format(got - own, stored - own))
    out:close()
    assert(os.rename(dir .. "/out." .. id .. ".new", dir .. "/out." .. id))
end
