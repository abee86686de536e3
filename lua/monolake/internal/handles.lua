--- The handles of the requests that are being handled: address of the request -> its handle. An
--- entry is removed by src/script/layer.c when the request ends.
return {}
