# SPDX-License-Identifier: Apache-2.0

# millrace_room(NAME LINKS...): the static library millrace_NAME of all sources below the calling folder.
function(millrace_room name)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  list(FILTER sources EXCLUDE REGEX "/main\\.cc$|/kernels/cuda/")  # CUDA's is a library of its own
  if(NOT sources)
    add_library(millrace_${name} INTERFACE)
    target_link_libraries(millrace_${name} INTERFACE millrace_flags ${ARGN})
    return()
  endif()
  add_library(millrace_${name} STATIC ${sources})
  target_link_libraries(millrace_${name} PUBLIC millrace_flags ${ARGN})
endfunction()

# millrace_tests(FOLDER LINKS...): one Catch2 executable of tests/FOLDER/*.cc, and one ctest that runs all of it.
function(millrace_tests folder)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/${folder}/*.cc)
  if(NOT sources)
    return()
  endif()
  add_executable(${folder}_tests ${sources} $<TARGET_OBJECTS:millrace_catch_main>)
  target_link_libraries(${folder}_tests PRIVATE millrace_flags ${ARGN})
  target_compile_definitions(${folder}_tests PRIVATE
    MILLRACE_SOURCE_DIR="${CMAKE_SOURCE_DIR}"
    MILLRACE_SHARED_DATA_DIR="${CMAKE_SOURCE_DIR}/../shared/data")
  add_test(NAME ${folder} COMMAND ${folder}_tests)
  set_tests_properties(${folder} PROPERTIES TIMEOUT 900)
endfunction()
