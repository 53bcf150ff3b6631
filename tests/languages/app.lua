-- Calls what the query names: function/argument/..., percent-encoded; =5 is the number 5.
local function text(value)
    if type(value) ~= 'string' then
        return tostring(value)
    end
    return '"' .. value:gsub('[%z\1-\31\127-\255"\\]', function(c) return ('\\x%02x'):format(c:byte()) end) .. '"'
end

function run(env)
    local words = {}
    for word in (env.QUERY_STRING .. '/'):gmatch('([^/]*)/') do
        local decoded = word:gsub('%%(..)', function(hex) return string.char(tonumber(hex, 16)) end)
        words[#words + 1] = word:sub(1, 1) == '=' and tonumber(word:sub(2)) or decoded
    end
    local done, answer = pcall(uwsgi[words[1]], unpack(words, 2))
    local body = done and text(answer) or '!' .. tostring(answer)
    return 200, { ['Content-Type'] = 'text/plain' }, coroutine.wrap(function() coroutine.yield(body) end)
end

return run
